{{
    config(
        materialized='incremental',
        unique_key='summary_key',
        on_schema_change='fail',
        tags=['dashboard', 'high_priority'],
    )
}}

with performance as (
    select * from {{ ref('fct_campaign_performance') }}
),

days as (
    select
        activity_date,
        platform,
        count(*) as campaigns,
        sum(impressions) as impressions,
        sum(clicks) as clicks,
        sum(spend) as spend,
        sum(conversions) as conversions,
        sum(conversion_value) as conversion_value,
        max(extracted_at) as last_extracted_at,
        sum({{ dbt.cast(epoch_microseconds('extracted_at'), 'numeric(28, 0)') }}) as extraction_checksum
    from performance
    group by activity_date, platform
),

{% if is_incremental() %}

    latest as (
        select max(activity_date) as activity_date from days
    ),

    -- The newest days, and every older day that is new, or that a later extraction has touched since.
    changed as (
        select days.*
        from days
        cross join latest
        left join {{ this }} as summarised
            on
                days.activity_date = summarised.activity_date
                and days.platform = summarised.platform
        where
            days.activity_date > {{ add_days('latest.activity_date', -var('summary_lookback_days')) }}
            or summarised.summary_key is null
            or summarised.campaigns <> days.campaigns
            or summarised.extraction_checksum <> days.extraction_checksum
    ),

{% else %}

    changed as (
        select * from days
    ),

{% endif %}

final as (
    select
        {{ surrogate_key(['activity_date', 'platform']) }} as summary_key,
        activity_date,
        platform,
        cast(campaigns as {{ dbt.type_bigint() }}) as campaigns,
        cast(impressions as {{ dbt.type_bigint() }}) as impressions,
        cast(clicks as {{ dbt.type_bigint() }}) as clicks,
        {{ money('spend') }} as spend,
        {{ dbt.cast('conversions', 'numeric(18, 2)') }} as conversions,
        {{ money('conversion_value') }} as conversion_value,
        {{ ratio('clicks', 'impressions', 6) }} as click_through_rate,
        {{ ratio('spend', 'clicks', 4) }} as cost_per_click,
        {{ ratio('conversion_value', 'spend', 4) }} as return_on_ad_spend,
        last_extracted_at,
        {{ dbt.cast('extraction_checksum', 'numeric(28, 0)') }} as extraction_checksum
    from changed
)

select * from final
