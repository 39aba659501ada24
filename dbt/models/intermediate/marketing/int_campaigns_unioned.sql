with google_ads as (
    select
        'google_ads' as platform,
        campaign_id,
        campaign_name,
        source_status,
        channel,
        daily_budget,
        started_on
    from {{ ref('stg_google_ads__campaigns') }}
),

facebook_ads as (
    select
        'facebook_ads' as platform,
        campaign_id,
        campaign_name,
        source_status,
        channel,
        daily_budget,
        started_on
    from {{ ref('stg_facebook_ads__campaigns') }}
),

unioned as (
    select * from google_ads
    union all
    select * from facebook_ads
)

select * from unioned
