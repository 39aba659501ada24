-- Advertising as Airbyte appends it: a day of a campaign arrives once, and again when it is restated.

-- One row per campaign; platform 1 is Google Ads, 2 is Facebook Ads. Of ten campaigns one is paused since a
-- quarter of the days, one removed since half of them, and one began after a third of them.
create or replace temp view campaigns as
select
    p.platform,
    c.number,
    p.platform * 10000000 + c.number as entity,
    case c.number % 10 when 3 then 'PAUSED' when 7 then 'REMOVED' else 'ENABLED' end as status,
    getvariable('today') - p.days::integer
    + case when c.number % 10 = 5 then (p.days // 3)::integer else 0 end as first_day,
    getvariable('today') - 1
    - case c.number % 10 when 3 then (p.days // 4)::integer when 7 then (p.days // 2)::integer else 0 end
        as last_day,
    case
        when c.number % 10 = 5 then first_day
        else (date_trunc('month', first_day) - to_months((draw(entity, 0, 1) % 30)::integer))::date
    end as start_date
from (
    select 1 as platform, getvariable('google_campaigns') as campaigns, getvariable('google_days') as days
    union all
    select 2, getvariable('facebook_campaigns'), getvariable('facebook_days')
) as p
cross join lateral range(1, p.campaigns + 1) as c (number);

-- One row per campaign and day, with what the day came to in the end. Money in millionths, conversions and
-- their value in hundredths.
create or replace temp view campaign_days as
with days as (
    select
        c.platform,
        c.number,
        c.entity,
        d.day_number,
        date '2000-01-01' + d.day_number::integer as day,
        getvariable('today') - day as age
    from campaigns as c
    cross join lateral range(
        c.first_day - date '2000-01-01',
        c.last_day - date '2000-01-01' + 1
    ) as d (day_number)
),

shown as (
    select
        *,
        between_draw(entity, 0, 2, 200, 20000)
        * (case platform
            when 1 then [105, 108, 110, 107, 100, 82, 78]
            else [95, 96, 98, 100, 104, 112, 110]
        end)[isodow(day)]
        * [92, 94, 97, 99, 100, 98, 93, 91, 101, 106, 124, 130][month(day)]
        * between_draw(entity, day_number, 3, 85, 115) // 1000000 as impressions
    from days
),

clicked as (
    select
        *,
        impressions * between_draw(entity, 0, 4, 100, 800) * between_draw(entity, day_number, 5, 80, 120)
        // 1000000 as clicks
    from shown
),

converted as (
    select
        *,
        clicks * between_draw(entity, 0, 6, 150, 2500) * 10 * between_draw(entity, day_number, 7, 90, 110)
            as cost_micros,
        clicks * between_draw(entity, 0, 8, 100, 800) * between_draw(entity, day_number, 9, 50, 150)
        // 10000 as conversions
    from clicked
)

select
    *,
    conversions * between_draw(entity, 0, 10, 2000, 12000) // 100 as conversions_value,
    -- Conversions are counted late: yesterday is restated by the last sync, other days less often with age.
    case
        when age = 1 then 1
        when age <= 7 then chance(entity, day_number, 11, 4000)::integer
        else chance(entity, day_number, 12, 200)::integer
    end as restated,
    restated + (restated > 0 and chance(entity, day_number, 13, 1000))::integer as last_version,
    (age <= 3 and chance(entity, day_number, 14, 1500))::integer as late_by
from converted;

-- One row per campaign, day and version of it. Earlier versions lack conversions and still have clicks that
-- are credited later.
create or replace temp view campaign_day_versions as
select
    d.* exclude (cost_micros, conversions, conversions_value),
    v.version,
    case
        when v.version = 0 then d.late_by
        when d.age = 1 and v.version = d.last_version then 5
        when v.version = 1 then d.late_by + 1 + draw(d.entity, d.day_number, 15) % 2
        else d.late_by + 4
    end as sync,
    d.cost_micros * (100 + d.last_version - v.version) // 100 as cost_micros,
    d.conversions * (100 - 12 * (d.last_version - v.version)) // 100 as conversions,
    d.conversions_value * (100 - 12 * (d.last_version - v.version)) // 100 as conversions_value
from campaign_days as d
cross join lateral range(0, d.last_version + 1) as v (version);

create or replace temp view google_ads_campaigns as
select
    10000000000 + number * 7919 as campaign_id,
    ['Search', 'Shopping', 'Display', 'Video'][1 + number % 4] || ' '
    || ['Brand', 'Generic', 'Retargeting', 'Local', 'Season'][1 + number % 5] || ' ' || printf('%04d', number)
        as campaign_name,
    status as campaign_status,
    ['SEARCH', 'SHOPPING', 'DISPLAY', 'VIDEO'][1 + number % 4] as advertising_channel_type,
    between_draw(entity, 0, 16, 5, 500) * 1000000 as campaign_budget_amount_micros,
    start_date as campaign_start_date,
    row_id('google_ads_campaigns', number) as _airbyte_raw_id,
    sync_at(5, number) as _airbyte_extracted_at
from campaigns
where platform = 1;

create or replace temp view google_ads_campaign_performance as
select
    10000000000 + number * 7919 as campaign_id,
    day as segments_date,
    impressions as metrics_impressions,
    clicks as metrics_clicks,
    cost_micros as metrics_cost_micros,
    hundredths(conversions) as metrics_conversions,
    hundredths(conversions_value) as metrics_conversions_value,
    row_id('google_ads_campaign_performance', number || '|' || day || '|' || version) as _airbyte_raw_id,
    sync_at(sync, number) as _airbyte_extracted_at
from campaign_day_versions
where platform = 1;

create or replace temp view facebook_ads_campaigns as
select
    '12020' || printf('%012d', number * 7919) as id,
    ['Prospecting', 'Retargeting', 'Lookalike', 'Engagement'][1 + number % 4] || ' '
    || ['Feed', 'Stories', 'Reels'][1 + number % 3] || ' ' || printf('%04d', number) as name,
    case status when 'ENABLED' then 'ACTIVE' when 'REMOVED' then 'ARCHIVED' else status end as status,
    ['OUTCOME_SALES', 'OUTCOME_TRAFFIC', 'OUTCOME_LEADS', 'OUTCOME_AWARENESS'][1 + number % 4] as objective,
    start_date + to_minutes(between_draw(entity, 0, 17, 420, 1080)) as created_time,
    between_draw(entity, 0, 16, 5, 500) * 100 as daily_budget_cents,
    row_id('facebook_ads_campaigns', number) as _airbyte_raw_id,
    sync_at(5, number) as _airbyte_extracted_at
from campaigns
where platform = 2;

create or replace temp view facebook_ads_insights as
select
    '12020' || printf('%012d', number * 7919) as campaign_id,
    day as date_start,
    impressions,
    clicks,
    hundredths(cost_micros // 10000) as spend,
    hundredths(conversions) as conversions,
    hundredths(conversions_value) as conversion_value,
    row_id('facebook_ads_insights', number || '|' || day || '|' || version) as _airbyte_raw_id,
    sync_at(sync, number) as _airbyte_extracted_at
from campaign_day_versions
where platform = 2;
