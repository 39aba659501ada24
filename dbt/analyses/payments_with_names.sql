-- Final payments of the last 30 days of concerts, with names: for the spot check before payroll.
with payments as (
    select * from {{ ref('fct_musician_payment') }}
    where is_final
),

musicians as (
    select * from {{ ref('dim_musician') }}
),

concerts as (
    select * from {{ ref('dim_concert') }}
)

select
    musicians.full_name,
    concerts.title,
    concerts.concert_date,
    payments.pay_type,
    payments.attended_services,
    payments.required_services,
    payments.gross_amount,
    payments.deductions,
    payments.net_amount
from payments
inner join musicians
    on payments.musician_id = musicians.musician_id
inner join concerts
    on payments.concert_id = concerts.concert_id
where concerts.concert_date >= {{ add_days('current_date', -30) }}
order by concerts.concert_date desc, musicians.last_name asc, musicians.first_name asc
