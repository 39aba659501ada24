select id from {{ ref('untested_ids') }}
