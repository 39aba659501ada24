select player, amount from {{ ref('payments') }}
