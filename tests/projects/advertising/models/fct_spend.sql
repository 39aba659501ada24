{{ config(materialized='table') }}

select spent_on, channel, sum(amount) as amount from {{ ref('stg_spend') }} group by spent_on, channel
