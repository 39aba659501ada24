with calculated as (
    select * from {{ ref('fct_musician_payment') }}
),

recorded as (
    select * from {{ ref('br_supabase_payment') }}
),

concerts as (
    select * from {{ ref('sv_concerts_summarised') }}
),

matched as (
    select
        coalesce(calculated.concert_id, recorded.concert_id) as concert_id,
        coalesce(calculated.musician_id, recorded.musician_id) as musician_id,
        calculated.gross_amount as calculated_gross_amount,
        calculated.deductions as calculated_deductions,
        calculated.net_amount as calculated_net_amount,
        recorded.gross_amount as recorded_gross_amount,
        recorded.deductions as recorded_deductions,
        recorded.net_amount as recorded_net_amount,
        {{ money('calculated.net_amount - recorded.net_amount') }} as net_difference,
        recorded.is_paid,
        recorded.payment_date,
        calculated.concert_id is not null as is_calculated,
        recorded.concert_id is not null as is_recorded
    from calculated
    full outer join recorded
        on
            calculated.concert_id = recorded.concert_id
            and calculated.musician_id = recorded.musician_id
),

final as (
    select
        {{ surrogate_key(['matched.concert_id', 'matched.musician_id']) }} as payment_key,
        matched.concert_id,
        matched.musician_id,
        case
            when not matched.is_recorded then 'not_recorded'
            when not matched.is_calculated then 'not_calculated'
            when abs(matched.net_difference) <= 0.01 then 'equal'
            else 'different'
        end as outcome,
        matched.calculated_gross_amount,
        matched.calculated_deductions,
        matched.calculated_net_amount,
        matched.recorded_gross_amount,
        matched.recorded_deductions,
        matched.recorded_net_amount,
        matched.net_difference,
        matched.is_paid,
        matched.payment_date
    from matched
    left join concerts
        on matched.concert_id = concerts.concert_id
    -- The source system records payments the day after a concert.
    where matched.is_recorded or concerts.is_over
)

select * from final
