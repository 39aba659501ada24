-- An orchestra's concerts, contracts, attendance and payments, as Airbyte copies them from the database it
-- works with.

-- Concerts are numbered from 2000-01-01 (a Saturday) on, so that a concert keeps its number, its date and
-- all that hangs on it when the data is written again on a later day.
create or replace temp view concerts as
select
    c.concert_id,
    date '2000-01-01' + (c.concert_id * 7 // getvariable('concerts_per_week'))::integer as concert_date,
    concert_date < getvariable('today') as is_past,
    3 + draw(c.concert_id, 0, 30) % 4 as service_count
from range(getvariable('first_concert'), getvariable('last_concert') + 1) as c (concert_id);

-- One row per rehearsal and performance. The last service is the performance, the one before it the dress
-- rehearsal the evening before, and the rehearsals are on the days before that.
create or replace temp view services as
select
    c.concert_id,
    c.concert_id * 10 + s.position as service_id,
    s.position,
    case c.service_count - s.position
        when 0 then 'performance'
        when 1 then 'dress_rehearsal'
        else 'rehearsal'
    end as service_type,
    c.concert_date - (c.service_count - s.position)::integer
    + case c.service_count - s.position
        when 0 then interval 1170 minutes
        when 1 then interval 1080 minutes
        else interval 600 minutes
    end as starts_at,
    case c.service_count - s.position when 0 then 135 when 1 then 150 else 180 end as duration_minutes
from concerts as c
cross join lateral range(1, c.service_count + 1) as s (position);

-- One row per concert and engaged musician. Money in hundredths; of ten musicians five are paid by service,
-- three a fee and two a salary.
create or replace temp view contracts as
select
    c.concert_id,
    c.concert_date,
    c.is_past,
    c.service_count,
    r.seat,
    c.concert_id * 1000 + r.seat as contract_id,
    1 + (draw(c.concert_id, 0, 31) + r.seat) % getvariable('musicians') as musician_id,
    case
        when musician_id * 7 % 10 < 2 then 'salaried'
        when musician_id * 7 % 10 < 5 then 'flat_fee'
        else 'per_service'
    end as pay_type,
    between_draw(musician_id, c.concert_id, 32, 8000, 13999) as rate_per_service,
    between_draw(musician_id, c.concert_id, 33, 30000, 79999) as flat_fee,
    between_draw(musician_id, c.concert_id, 34, 6000, 17999) as deduction_per_missed_service
from concerts as c
cross join range(0, getvariable('seats')) as r (seat);

-- One row per service and engaged musician, with everything that is ever recorded about it. A change is
-- recorded when it happens, or days later as a correction that is true from the time it corrects.
create or replace temp view attendance_facts as
with engaged as (
    select
        s.service_id,
        s.starts_at,
        c.contract_id,
        c.concert_id,
        c.musician_id,
        c.seat,
        s.service_id * 1000 + c.seat as occasion,
        chance(c.contract_id, 0, 42, 40) as never_comes,
        draw(s.service_id, c.seat, 40) % 10000 as chance_of_status
    from services as s
    inner join contracts as c on s.concert_id = c.concert_id
),

checked_in as (
    select
        *,
        starts_at + to_minutes(draw(service_id, seat, 41) % 10) as checked_in_at,
        case
            when never_comes or chance_of_status < 300 then 'absent'
            when chance_of_status < 800 then 'excused'
            when chance_of_status < 1600 then 'late'
            else 'present'
        end as first_status,
        chance(service_id, seat, 43, 1500) as may_come_after_all,
        chance(service_id, seat, 44, 400) as is_corrected,
        chance(service_id, seat, 45, 1000) as may_be_corrected_again,
        to_minutes(30 + draw(service_id, seat, 46) % 30) as late_by,
        to_minutes(1440 + draw(service_id, seat, 47) % 14400) as corrected_after,
        to_minutes(600 + draw(service_id, seat, 48) % 7200) as corrected_again_after
    from engaged
),

followed as (
    select
        *,
        first_status = 'absent' and may_come_after_all as came_after_all,
        is_corrected and may_be_corrected_again as is_corrected_again,
        checked_in_at + corrected_after as corrected_at
    from checked_in
)

select
    *,
    case when came_after_all then checked_in_at + late_by else checked_in_at end as true_from,
    corrected_at + corrected_again_after as corrected_again_at,
    case
        when came_after_all then 'present'
        when first_status = 'absent' then 'excused'
        when first_status = 'present' then 'absent'
        else 'present'
    end as corrected_status
from followed;

-- One row per change of an attendance that has been recorded by now.
create or replace temp view attendance_changes as
select
    f.occasion * 4 + c.change.number as attendance_id,
    f.service_id,
    f.contract_id,
    f.concert_id,
    f.musician_id,
    c.change.status as status,
    c.change.effective_from as effective_from,
    c.change.recorded_at as recorded_at
from attendance_facts as f
cross join lateral (
    select
        unnest([
            {
                number: 0,
                status: f.first_status,
                effective_from: f.checked_in_at,
                recorded_at: f.checked_in_at
            },
            case
                when f.came_after_all
                    then {number: 1, status: 'late', effective_from: f.true_from, recorded_at: f.true_from}
            end,
            case
                when f.is_corrected
                    then {
                        number: 2,
                        status: f.corrected_status,
                        effective_from: f.true_from,
                        recorded_at: f.corrected_at
                    }
            end,
            case
                when f.is_corrected_again
                    then {
                        number: 3,
                        status: 'late',
                        effective_from: f.true_from,
                        recorded_at: f.corrected_again_at
                    }
            end
        ]) as change
) as c
where c.change.recorded_at <= getvariable('now');

create or replace temp view supabase_musician as
select
    m.musician_id,
    'Musician' as first_name,
    printf('%04d', m.musician_id) as last_name,
    'musician.' || printf('%04d', m.musician_id) || '@example.org' as email,
    [
        'violin', 'viola', 'cello', 'double bass', 'flute', 'oboe', 'clarinet', 'bassoon', 'horn', 'trumpet',
        'trombone', 'percussion'
    ][1 + (m.musician_id - 1) % 12] as instrument,
    m.musician_id % 12 != 11 as is_active,
    (
        date_trunc('year', getvariable('today'))
        - to_months((24 + draw(m.musician_id, 0, 50) % 200)::integer)
    )::date as hired_on,
    hired_on + to_minutes(540 + draw(m.musician_id, 0, 51) % 1000000) as updated_at,
    row_id('supabase_musician', m.musician_id) as _airbyte_ab_id,
    sync_at(5, m.musician_id) as _airbyte_emitted_at
from range(1, getvariable('musicians') + 1) as m (musician_id);

create or replace temp view supabase_concert as
select
    concert_id,
    [
        'Autumn Serenade', 'Symphonic Evening', 'Chamber Night', 'Choral Masterworks', 'Family Matinee',
        'Film Music Gala', 'Light Classics'
    ][1 + concert_id % 7] || ' ' || concert_id as title,
    [
        'Town Hall', 'Riverside Auditorium', 'North Church', 'Festival Tent', 'University Aula'
    ][1 + concert_id % 5] as venue,
    concert_date,
    (year(concert_date) - (month(concert_date) < 9)::integer) || '/'
    || printf('%02d', (year(concert_date) + (month(concert_date) >= 9)::integer) % 100) as season,
    least(concert_date - interval 60 days, getvariable('now') - interval 1 day) as updated_at,
    row_id('supabase_concert', concert_id) as _airbyte_ab_id,
    sync_at(5, concert_id) as _airbyte_emitted_at
from concerts;

create or replace temp view supabase_service as
select
    service_id,
    concert_id,
    service_type,
    starts_at,
    duration_minutes,
    least(starts_at - interval 60 days, getvariable('now') - interval 1 day) as updated_at,
    row_id('supabase_service', service_id) as _airbyte_ab_id,
    sync_at(5, concert_id) as _airbyte_emitted_at
from services;

create or replace temp view supabase_contract as
select
    contract_id,
    concert_id,
    musician_id,
    pay_type,
    case when pay_type = 'per_service' then hundredths(rate_per_service) end as rate_per_service,
    case when pay_type = 'flat_fee' then hundredths(flat_fee) end as flat_fee,
    service_count as required_services,
    case when pay_type = 'flat_fee' then hundredths(deduction_per_missed_service) end
        as deduction_per_missed_service,
    least(concert_date - interval 30 days, getvariable('now') - interval 1 day) as updated_at,
    row_id('supabase_contract', contract_id) as _airbyte_ab_id,
    sync_at(5, concert_id) as _airbyte_emitted_at
from contracts;

create or replace temp view supabase_attendance as
select
    attendance_id,
    service_id,
    musician_id,
    status,
    effective_from,
    recorded_at,
    recorded_at as updated_at,
    row_id('supabase_attendance', attendance_id) as _airbyte_ab_id,
    sync_at(5, concert_id) as _airbyte_emitted_at
from attendance_changes;

-- What the operational database paid: computed from the attendance as it stands now, by the same rules as
-- the marts but on its own.
create or replace temp view supabase_payment as
with standing as (
    select
        contract_id,
        service_id,
        arg_max(status, {effective_from: effective_from, recorded_at: recorded_at}) as status,
        max(recorded_at) as recorded_at
    from attendance_changes
    group by contract_id, service_id
),

counted as (
    select
        contract_id,
        count(*) filter (where status in ('present', 'late')) as played,
        count(*) filter (where status = 'excused') as excused,
        max(recorded_at) as recorded_at
    from standing
    group by contract_id
),

owed as (
    select
        c.*,
        n.recorded_at,
        case c.pay_type
            when 'per_service' then n.played * c.rate_per_service
            when 'flat_fee' then c.flat_fee
            else 0
        end as gross,
        case c.pay_type
            when 'flat_fee'
                then least(
                    c.flat_fee,
                    (c.service_count - n.played - n.excused) * c.deduction_per_missed_service
                )
            else 0
        end as deducted
    from contracts as c
    inner join counted as n on c.contract_id = n.contract_id
    where c.is_past
)

select
    contract_id as payment_id,
    concert_id,
    musician_id,
    hundredths(gross) as gross_amount,
    hundredths(deducted) as deductions,
    hundredths(gross - deducted) as net_amount,
    concert_date + 14 <= getvariable('today') as paid,
    case when paid then concert_date + 14 end as payment_date,
    least(greatest(concert_date + interval 30 hours, recorded_at), getvariable('now')) as updated_at,
    row_id('supabase_payment', contract_id) as _airbyte_ab_id,
    sync_at(5, concert_id) as _airbyte_emitted_at
from owed;
