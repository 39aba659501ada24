{{ config(materialized='incremental', unique_key='spent_on', tags=['dashboard']) }}

select spent_on, sum(amount) as amount from {{ ref('fct_spend') }} group by spent_on
