-- Musicians under contract without any attendance record for a service that was held. They count as having
-- missed it, so a forgotten entry costs money; a warning, because entries may come some days late.
{{ config(severity='warn', group='payroll', tags=['payroll']) }}

with contracts as (
    select * from {{ ref('sv_contracts_attended') }}
),

services as (
    select * from {{ ref('sv_concert_services') }}
    where is_held
),

attendance as (
    select * from {{ ref('sv_attendance_resolved') }}
)

select
    contracts.concert_id,
    contracts.musician_id,
    services.service_id
from contracts
inner join services
    on contracts.concert_id = services.concert_id
left join attendance
    on
        services.service_id = attendance.service_id
        and contracts.musician_id = attendance.musician_id
where attendance.natural_key is null
