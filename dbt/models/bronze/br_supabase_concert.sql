with source as (
    select * from {{ source('supabase', 'concert') }}
),

renamed as (
    select
        cast(concert_id as {{ dbt.type_bigint() }}) as concert_id,
        cast(title as {{ dbt.type_string() }}) as title,
        cast(venue as {{ dbt.type_string() }}) as venue,
        cast(concert_date as date) as concert_date,
        cast(season as {{ dbt.type_string() }}) as season,
        cast(updated_at as {{ dbt.type_timestamp() }}) as updated_at,
        cast(_airbyte_ab_id as {{ dbt.type_string() }}) as _airbyte_ab_id,
        cast(_airbyte_emitted_at as {{ dbt.type_timestamp() }}) as _airbyte_emitted_at
    from source
)

select * from renamed
