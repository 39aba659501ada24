select id, amount from {{ ref('readings') }}
