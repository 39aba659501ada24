-- Days on which the incremental summary and the campaigns behind it disagree. Days that the source no longer
-- has stay in the summary, so they are not looked at.
{{ config(group='marketing', tags=['marketing']) }}

with performance as (
    select
        activity_date,
        platform,
        sum(clicks) as clicks,
        sum(spend) as spend
    from {{ ref('fct_campaign_performance') }}
    group by activity_date, platform
),

summary as (
    select * from {{ ref('daily_campaign_summary') }}
)

select
    performance.activity_date,
    performance.platform,
    performance.spend,
    summary.spend as summarised_spend
from performance
left join summary
    on
        performance.activity_date = summary.activity_date
        and performance.platform = summary.platform
where
    summary.platform is null
    or performance.clicks <> summary.clicks
    or performance.spend <> summary.spend
