with source as (
    select * from {{ source('supabase', 'attendance') }}
),

renamed as (
    select
        cast(attendance_id as {{ dbt.type_bigint() }}) as attendance_id,
        cast(service_id as {{ dbt.type_bigint() }}) as service_id,
        cast(musician_id as {{ dbt.type_bigint() }}) as musician_id,
        cast(status as {{ dbt.type_string() }}) as status,
        cast(effective_from as {{ dbt.type_timestamp() }}) as effective_from,
        cast(recorded_at as {{ dbt.type_timestamp() }}) as recorded_at,
        cast(updated_at as {{ dbt.type_timestamp() }}) as updated_at,
        cast(_airbyte_ab_id as {{ dbt.type_string() }}) as _airbyte_ab_id,
        cast(_airbyte_emitted_at as {{ dbt.type_timestamp() }}) as _airbyte_emitted_at
    from source
)

select * from renamed
