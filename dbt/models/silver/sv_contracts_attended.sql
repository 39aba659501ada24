with contracts as (
    select * from {{ ref('br_supabase_contract') }}
),

concerts as (
    select * from {{ ref('sv_concerts_summarised') }}
),

attendance as (
    select * from {{ ref('sv_attendance_resolved') }}
),

rules as (
    select * from {{ ref('attendance_rules') }}
),

attended as (
    select
        contracts.contract_id,
        sum(case when rules.counts_as_attended then 1 else 0 end) as attended_services,
        sum(
            case when rules.counts_as_attended and attendance.is_held then 1 else 0 end
        ) as attended_held_services,
        max(attendance.recorded_at) as recorded_at
    from contracts
    inner join attendance
        on
            contracts.concert_id = attendance.concert_id
            and contracts.musician_id = attendance.musician_id
    left join rules
        on
            contracts.pay_type = rules.pay_type
            and attendance.status = rules.attendance_status
    group by contracts.contract_id
),

final as (
    select
        contracts.contract_id,
        contracts.concert_id,
        contracts.musician_id,
        contracts.pay_type,
        contracts.rate_per_service,
        contracts.flat_fee,
        coalesce(contracts.deduction_per_missed_service, {{ money('0') }}) as deduction_per_missed_service,
        coalesce(concerts.required_services, 0) as required_services,
        coalesce(concerts.held_services, 0) as held_services,
        cast(coalesce(attended.attended_services, 0) as {{ dbt.type_int() }}) as attended_services,
        cast(
            coalesce(concerts.held_services, 0) - coalesce(attended.attended_held_services, 0)
            as {{ dbt.type_int() }}
        ) as missed_services,
        greatest(
            contracts.updated_at,
            coalesce(concerts.updated_at, contracts.updated_at),
            coalesce(attended.recorded_at, contracts.updated_at)
        ) as inputs_updated_at
    from contracts
    left join concerts
        on contracts.concert_id = concerts.concert_id
    left join attended
        on contracts.contract_id = attended.contract_id
)

select * from final
