select
    number as id,
    'person' || number || '@example.org' as email,
    case when number > {{ var('without_amount') }} then 10 * number end as amount,
    case when number > {{ var('unknown_currencies') }} then 'EUR' else 'ZZZ' end as currency
from range(1, 11) as numbers (number)
