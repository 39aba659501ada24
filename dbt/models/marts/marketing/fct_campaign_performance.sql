with performance as (
    select * from {{ ref('int_campaign_performance_unioned') }}
),

final as (
    select
        {{ surrogate_key(['platform', 'campaign_id', 'activity_date']) }} as performance_key,
        {{ surrogate_key(['platform', 'campaign_id']) }} as campaign_key,
        platform,
        campaign_id,
        activity_date,
        impressions,
        clicks,
        spend,
        conversions,
        conversion_value,
        {{ ratio('clicks', 'impressions', 6) }} as click_through_rate,
        {{ ratio('spend', 'clicks', 4) }} as cost_per_click,
        extracted_at
    from performance
)

select * from final
