with source as (
    select
        *,
        row_number() over (
            partition by campaign_id
            order by _airbyte_extracted_at desc, _airbyte_raw_id desc
        ) as recency
    from {{ source('google_ads', 'campaigns') }}
),

renamed as (
    select
        cast(campaign_id as {{ dbt.type_string() }}) as campaign_id,
        cast(campaign_name as {{ dbt.type_string() }}) as campaign_name,
        cast(campaign_status as {{ dbt.type_string() }}) as source_status,
        cast(advertising_channel_type as {{ dbt.type_string() }}) as channel,
        {{ money_from_micros('campaign_budget_amount_micros') }} as daily_budget,
        cast(campaign_start_date as date) as started_on,
        cast(_airbyte_extracted_at as {{ dbt.type_timestamp() }}) as extracted_at
    from source
    where recency = 1
)

select * from renamed
