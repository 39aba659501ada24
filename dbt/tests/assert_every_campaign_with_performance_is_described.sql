-- Campaigns with performance that their platform does not describe, such as ones deleted for good. Their
-- figures count; only their name and status are unknown.
{{ config(severity='warn', group='marketing', tags=['marketing']) }}

select
    platform,
    campaign_id,
    last_activity_date
from {{ ref('dim_campaigns') }}
where not is_described
