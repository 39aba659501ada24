with source as (
    select
        *,
        row_number() over (
            partition by campaign_id, date_start
            order by _airbyte_extracted_at desc, _airbyte_raw_id desc
        ) as recency
    from {{ source('facebook_ads', 'insights') }}
),

renamed as (
    select
        cast(campaign_id as {{ dbt.type_string() }}) as campaign_id,
        cast(date_start as date) as activity_date,
        cast(coalesce(impressions, 0) as {{ dbt.type_bigint() }}) as impressions,
        cast(coalesce(clicks, 0) as {{ dbt.type_bigint() }}) as clicks,
        {{ money('coalesce(spend, 0)') }} as spend,
        {{ dbt.cast('coalesce(conversions, 0)', 'numeric(18, 2)') }} as conversions,
        {{ money('coalesce(conversion_value, 0)') }} as conversion_value,
        cast(_airbyte_extracted_at as {{ dbt.type_timestamp() }}) as extracted_at
    from source
    where recency = 1
)

select * from renamed
