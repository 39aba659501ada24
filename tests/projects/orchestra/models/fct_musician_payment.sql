-- depends_on: {{ ref("sv_contracts_attended") }}
select
    cast(musician_id as varchar) as payment_key, musician_id as contract_id, concert_id, musician_id, pay_type,
    1 as attended_services, 1 as held_services, 0 as missed_services, 1 as required_services, net_amount as gross_amount,
    cast(0 as numeric(18, 2)) as deductions, net_amount, true as is_final, cast('{{ run_started_at }}' as timestamp) as calculated_at
from {{ source('office', 'pay') }}
