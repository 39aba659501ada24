select id from {{ ref('sleeper') }}
