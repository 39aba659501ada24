with services as (
    select * from {{ ref('sv_concert_services') }}
),

final as (
    select
        concert_id,
        cast(count(*) as {{ dbt.type_int() }}) as required_services,
        cast(sum(case when is_held then 1 else 0 end) as {{ dbt.type_int() }}) as held_services,
        cast(sum(case when is_rehearsal then 1 else 0 end) as {{ dbt.type_int() }}) as rehearsals,
        min(case when is_day_over then 1 else 0 end) = 1 as is_over,
        min(starts_at) as first_service_at,
        max(starts_at) as last_service_at,
        max(updated_at) as updated_at
    from services
    group by concert_id
)

select * from final
