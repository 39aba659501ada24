select player, max(recorded_at) as updated_at, max(rate) as rate from {{ source('raw', 'rates') }} group by player
