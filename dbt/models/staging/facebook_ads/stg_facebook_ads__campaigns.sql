with source as (
    select
        *,
        row_number() over (
            partition by id
            order by _airbyte_extracted_at desc, _airbyte_raw_id desc
        ) as recency
    from {{ source('facebook_ads', 'campaigns') }}
),

renamed as (
    select
        cast(id as {{ dbt.type_string() }}) as campaign_id,
        cast(name as {{ dbt.type_string() }}) as campaign_name,
        cast(status as {{ dbt.type_string() }}) as source_status,
        cast(objective as {{ dbt.type_string() }}) as channel,
        {{ money_from_cents('daily_budget_cents') }} as daily_budget,
        cast(created_time as date) as started_on,
        cast(_airbyte_extracted_at as {{ dbt.type_timestamp() }}) as extracted_at
    from source
    where recency = 1
)

select * from renamed
