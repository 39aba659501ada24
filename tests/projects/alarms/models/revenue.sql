select sum(amount) as amount from {{ ref('payments') }}
