with concerts as (
    select * from {{ ref('br_supabase_concert') }}
),

versions as (
    select
        *,
        row_number() over (partition by concert_id order by dbt_valid_from desc, dbt_scd_id desc) as recency
    from {{ ref('concert_snapshot') }}
),

services as (
    select * from {{ ref('sv_concerts_summarised') }}
),

-- Payments outlive their concerts: one that was deleted keeps the row last seen.
deleted as (
    select versions.*
    from versions
    left join concerts
        on versions.concert_id = concerts.concert_id
    where versions.recency = 1 and concerts.concert_id is null
),

known as (
    select
        concert_id,
        title,
        venue,
        concert_date,
        season,
        false as is_deleted,
        updated_at
    from concerts
    union all
    select
        concert_id,
        title,
        venue,
        concert_date,
        season,
        true as is_deleted,
        updated_at
    from deleted
),

final as (
    select
        known.concert_id,
        known.title,
        known.venue,
        known.concert_date,
        known.season,
        coalesce(services.required_services, 0) as required_services,
        coalesce(services.held_services, 0) as held_services,
        coalesce(services.rehearsals, 0) as rehearsals,
        services.first_service_at,
        services.last_service_at,
        known.is_deleted,
        known.updated_at
    from known
    left join services
        on known.concert_id = services.concert_id
)

select * from final
