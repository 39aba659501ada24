select id, delivered_at from {{ source('deliveries', 'crates') }}
