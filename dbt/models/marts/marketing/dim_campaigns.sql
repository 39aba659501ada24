with campaigns as (
    select * from {{ ref('int_campaigns_unioned') }}
),

activity as (
    select
        platform,
        campaign_id,
        min(activity_date) as first_activity_date,
        max(activity_date) as last_activity_date
    from {{ ref('int_campaign_performance_unioned') }}
    group by platform, campaign_id
),

statuses as (
    select * from {{ ref('campaign_statuses') }}
),

-- A campaign that the platform no longer describes still has performance, and so still needs a row.
known as (
    select
        platform,
        campaign_id
    from campaigns
    union distinct
    select
        platform,
        campaign_id
    from activity
),

final as (
    select
        {{ surrogate_key(['known.platform', 'known.campaign_id']) }} as campaign_key,
        known.platform,
        known.campaign_id,
        campaigns.campaign_name,
        coalesce(statuses.campaign_status, 'unknown') as campaign_status,
        campaigns.source_status,
        campaigns.channel,
        campaigns.daily_budget,
        campaigns.started_on,
        activity.first_activity_date,
        activity.last_activity_date,
        campaigns.campaign_id is not null as is_described
    from known
    left join campaigns
        on
            known.platform = campaigns.platform
            and known.campaign_id = campaigns.campaign_id
    left join activity
        on
            known.platform = activity.platform
            and known.campaign_id = activity.campaign_id
    left join statuses
        on
            campaigns.platform = statuses.platform
            and campaigns.source_status = statuses.source_status
)

select * from final
