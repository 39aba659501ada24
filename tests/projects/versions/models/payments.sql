select player, sum(rate) as amount from {{ ref('rate_versions') }} where is_current group by player
