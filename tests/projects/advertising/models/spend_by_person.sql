{{ config(materialized='table') }}

select people.person_id, sum(spend.amount) as amount
from {{ ref('fct_spend') }} as spend
cross join {{ ref('stg_people') }} as people
group by people.person_id
