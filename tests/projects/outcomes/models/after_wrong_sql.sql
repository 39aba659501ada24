select id from {{ ref('wrong_sql') }}
