with source as (
    select
        *,
        row_number() over (
            partition by campaign_id, segments_date
            order by _airbyte_extracted_at desc, _airbyte_raw_id desc
        ) as recency
    from {{ source('google_ads', 'campaign_performance') }}
),

renamed as (
    select
        cast(campaign_id as {{ dbt.type_string() }}) as campaign_id,
        cast(segments_date as date) as activity_date,
        cast(coalesce(metrics_impressions, 0) as {{ dbt.type_bigint() }}) as impressions,
        cast(coalesce(metrics_clicks, 0) as {{ dbt.type_bigint() }}) as clicks,
        {{ money_from_micros('coalesce(metrics_cost_micros, 0)') }} as spend,
        {{ dbt.cast('coalesce(metrics_conversions, 0)', 'numeric(18, 2)') }} as conversions,
        {{ money('coalesce(metrics_conversions_value, 0)') }} as conversion_value,
        cast(_airbyte_extracted_at as {{ dbt.type_timestamp() }}) as extracted_at
    from source
    where recency = 1
)

select * from renamed
