select id, amount from {{ ref('inlined') }}
