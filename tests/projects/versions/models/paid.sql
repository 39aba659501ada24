select * from {{ source('raw', 'paid') }}
