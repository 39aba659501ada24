with source as (
    select * from {{ source('supabase', 'service') }}
),

renamed as (
    select
        cast(service_id as {{ dbt.type_bigint() }}) as service_id,
        cast(concert_id as {{ dbt.type_bigint() }}) as concert_id,
        cast(service_type as {{ dbt.type_string() }}) as service_type,
        cast(starts_at as {{ dbt.type_timestamp() }}) as starts_at,
        cast(duration_minutes as {{ dbt.type_int() }}) as duration_minutes,
        cast(updated_at as {{ dbt.type_timestamp() }}) as updated_at,
        cast(_airbyte_ab_id as {{ dbt.type_string() }}) as _airbyte_ab_id,
        cast(_airbyte_emitted_at as {{ dbt.type_timestamp() }}) as _airbyte_emitted_at
    from source
)

select * from renamed
