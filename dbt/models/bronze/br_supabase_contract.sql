with source as (
    select * from {{ source('supabase', 'contract') }}
),

renamed as (
    select
        cast(contract_id as {{ dbt.type_bigint() }}) as contract_id,
        cast(concert_id as {{ dbt.type_bigint() }}) as concert_id,
        cast(musician_id as {{ dbt.type_bigint() }}) as musician_id,
        cast(pay_type as {{ dbt.type_string() }}) as pay_type,
        {{ money('rate_per_service') }} as rate_per_service,
        {{ money('flat_fee') }} as flat_fee,
        cast(required_services as {{ dbt.type_int() }}) as required_services,
        {{ money('deduction_per_missed_service') }} as deduction_per_missed_service,
        cast(updated_at as {{ dbt.type_timestamp() }}) as updated_at,
        cast(_airbyte_ab_id as {{ dbt.type_string() }}) as _airbyte_ab_id,
        cast(_airbyte_emitted_at as {{ dbt.type_timestamp() }}) as _airbyte_emitted_at
    from source
)

select * from renamed
