select spent_on, channel, amount from {{ source('ads', 'spend') }}
