select
    p.concert_id, p.musician_id, 'equal' as outcome, p.net_amount as calculated_net_amount, r.recorded as recorded_net_amount
from {{ ref('fct_musician_payment') }} p
join {{ source('office', 'pay') }} r on p.musician_id = r.musician_id
