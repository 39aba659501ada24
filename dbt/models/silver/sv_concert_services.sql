with services as (
    select * from {{ ref('br_supabase_service') }}
),

service_types as (
    select * from {{ ref('service_types') }}
),

-- What had happened is judged by the last sync, not by the clock, so that a later run gives the same rows.
last_sync as (
    select max(_airbyte_emitted_at) as synced_at from services
),

timed as (
    select
        services.*,
        {{ add_minutes('services.starts_at', 'services.duration_minutes') }} as ends_at,
        last_sync.synced_at
    from services
    cross join last_sync
),

final as (
    select
        timed.service_id,
        timed.concert_id,
        timed.service_type,
        coalesce(service_types.label, timed.service_type) as service_label,
        coalesce(service_types.is_rehearsal, false) as is_rehearsal,
        timed.starts_at,
        timed.ends_at,
        timed.ends_at <= timed.synced_at as is_held,
        cast(timed.ends_at as date) < cast(timed.synced_at as date) as is_day_over,
        timed.updated_at
    from timed
    left join service_types
        on timed.service_type = service_types.service_type
)

select * from final
