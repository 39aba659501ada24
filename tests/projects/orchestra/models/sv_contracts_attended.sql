select musician_id as contract_id, net_amount as rate_per_service, cast(null as numeric(18, 2)) as flat_fee, cast(0 as numeric(18, 2)) as deduction_per_missed_service
from {{ source('office', 'pay') }}
