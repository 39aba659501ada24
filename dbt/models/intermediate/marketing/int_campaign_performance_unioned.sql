with google_ads as (
    select
        'google_ads' as platform,
        campaign_id,
        activity_date,
        impressions,
        clicks,
        spend,
        conversions,
        conversion_value,
        extracted_at
    from {{ ref('stg_google_ads__campaign_performance') }}
),

facebook_ads as (
    select
        'facebook_ads' as platform,
        campaign_id,
        activity_date,
        impressions,
        clicks,
        spend,
        conversions,
        conversion_value,
        extracted_at
    from {{ ref('stg_facebook_ads__insights') }}
),

unioned as (
    select * from google_ads
    union all
    select * from facebook_ads
)

select * from unioned
