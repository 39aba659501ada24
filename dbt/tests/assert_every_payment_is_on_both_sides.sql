-- Payments that only the source or only the calculation knows. A warning, because the source records payments
-- some time after a concert.
{{ config(severity='warn', group='payroll', tags=['payroll']) }}

select
    concert_id,
    musician_id,
    outcome
from {{ ref('fct_payment_reconciliation') }}
where outcome in ('not_recorded', 'not_calculated')
