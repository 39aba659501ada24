with source as (
    select * from {{ source('supabase', 'musician') }}
),

renamed as (
    select
        cast(musician_id as {{ dbt.type_bigint() }}) as musician_id,
        cast(first_name as {{ dbt.type_string() }}) as first_name,
        cast(last_name as {{ dbt.type_string() }}) as last_name,
        cast(email as {{ dbt.type_string() }}) as email,
        cast(instrument as {{ dbt.type_string() }}) as instrument,
        cast(is_active as boolean) as is_active,
        cast(hired_on as date) as hired_on,
        cast(updated_at as {{ dbt.type_timestamp() }}) as updated_at,
        cast(_airbyte_ab_id as {{ dbt.type_string() }}) as _airbyte_ab_id,
        cast(_airbyte_emitted_at as {{ dbt.type_timestamp() }}) as _airbyte_emitted_at
    from source
)

select * from renamed
