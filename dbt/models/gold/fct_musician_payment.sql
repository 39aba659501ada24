with contracts as (
    select * from {{ ref('sv_contracts_attended') }}
),

grossed as (
    select
        *,
        {{ money("case pay_type
            when 'per_service' then attended_services * rate_per_service
            when 'flat_fee' then flat_fee
            when 'salaried' then 0
        end") }} as gross_amount
    from contracts
),

deducted as (
    select
        *,
        {{ money("case
            when pay_type = 'flat_fee' then least(missed_services * deduction_per_missed_service, gross_amount)
            else 0
        end") }} as deductions
    from grossed
),

final as (
    select
        {{ surrogate_key(['concert_id', 'musician_id']) }} as payment_key,
        contract_id,
        concert_id,
        musician_id,
        pay_type,
        attended_services,
        held_services,
        missed_services,
        required_services,
        gross_amount,
        deductions,
        {{ money('gross_amount - deductions') }} as net_amount,
        required_services > 0 and held_services = required_services as is_final,
        inputs_updated_at,
        {{ run_started_at_utc() }} as calculated_at
    from deducted
)

select * from final
