with source as (
    select * from {{ source('supabase', 'payment') }}
),

renamed as (
    select
        cast(payment_id as {{ dbt.type_bigint() }}) as payment_id,
        cast(concert_id as {{ dbt.type_bigint() }}) as concert_id,
        cast(musician_id as {{ dbt.type_bigint() }}) as musician_id,
        {{ money('gross_amount') }} as gross_amount,
        {{ money('deductions') }} as deductions,
        {{ money('net_amount') }} as net_amount,
        cast(paid as boolean) as is_paid,
        cast(payment_date as date) as payment_date,
        cast(updated_at as {{ dbt.type_timestamp() }}) as updated_at,
        cast(_airbyte_ab_id as {{ dbt.type_string() }}) as _airbyte_ab_id,
        cast(_airbyte_emitted_at as {{ dbt.type_timestamp() }}) as _airbyte_emitted_at
    from source
)

select * from renamed
