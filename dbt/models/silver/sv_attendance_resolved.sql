with attendance as (
    select * from {{ ref('br_attendance_scd2') }}
    where is_current
),

services as (
    select * from {{ ref('sv_concert_services') }}
),

final as (
    select
        attendance.natural_key,
        attendance.service_id,
        attendance.musician_id,
        services.concert_id,
        services.is_held,
        attendance.status,
        attendance.effective_from,
        attendance.recorded_at,
        attendance.recorded_at > attendance.effective_from as is_correction,
        {{ hours_between('attendance.effective_from', 'attendance.recorded_at') }} as hours_until_recorded
    from attendance
    inner join services
        on attendance.service_id = services.service_id
)

select * from final
