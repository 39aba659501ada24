-- The raw tables that the project reads, empty: what its loaders promise. Plain SQL, the same on every warehouse.
create schema raw;

create table raw.github_repositories (
    repository_id varchar, name varchar, url varchar, default_branch varchar, head_hash varchar, is_shallow boolean,
    commit_count bigint, ingested_at timestamp
);
create table raw.github_contributors (
    repository_id varchar, contributor_id varchar, name varchar, email varchar, commit_count bigint,
    first_authored_at timestamp, last_authored_at timestamp, ingested_at timestamp
);
create table raw.github_commits (
    repository_id varchar, hash varchar, parent_count integer, author_name varchar, author_email varchar,
    authored_at timestamp, committer_name varchar, committer_email varchar, committed_at timestamp, message text,
    files_changed integer, insertions bigint, deletions bigint, ingested_at timestamp
);

create table raw.google_ads_campaigns (
    campaign_id bigint, campaign_name varchar, campaign_status varchar, advertising_channel_type varchar,
    campaign_budget_amount_micros bigint, campaign_start_date date,
    _airbyte_raw_id varchar, _airbyte_extracted_at timestamp
);
create table raw.google_ads_campaign_performance (
    campaign_id bigint, segments_date date, metrics_impressions bigint, metrics_clicks bigint,
    metrics_cost_micros bigint, metrics_conversions numeric(18, 2), metrics_conversions_value numeric(18, 2),
    _airbyte_raw_id varchar, _airbyte_extracted_at timestamp
);
create table raw.facebook_ads_campaigns (
    id varchar, name varchar, status varchar, objective varchar, created_time timestamp, daily_budget_cents bigint,
    _airbyte_raw_id varchar, _airbyte_extracted_at timestamp
);
create table raw.facebook_ads_insights (
    campaign_id varchar, date_start date, impressions bigint, clicks bigint, spend numeric(18, 2),
    conversions numeric(18, 2), conversion_value numeric(18, 2),
    _airbyte_raw_id varchar, _airbyte_extracted_at timestamp
);

create table raw.supabase_musician (
    musician_id bigint, first_name varchar, last_name varchar, email varchar, instrument varchar, is_active boolean,
    hired_on date, updated_at timestamp, _airbyte_ab_id varchar, _airbyte_emitted_at timestamp
);
create table raw.supabase_concert (
    concert_id bigint, title varchar, venue varchar, concert_date date, season varchar, updated_at timestamp,
    _airbyte_ab_id varchar, _airbyte_emitted_at timestamp
);
create table raw.supabase_service (
    service_id bigint, concert_id bigint, service_type varchar, starts_at timestamp, duration_minutes integer,
    updated_at timestamp, _airbyte_ab_id varchar, _airbyte_emitted_at timestamp
);
create table raw.supabase_contract (
    contract_id bigint, concert_id bigint, musician_id bigint, pay_type varchar, rate_per_service numeric(18, 2),
    flat_fee numeric(18, 2), required_services integer, deduction_per_missed_service numeric(18, 2),
    updated_at timestamp, _airbyte_ab_id varchar, _airbyte_emitted_at timestamp
);
create table raw.supabase_attendance (
    attendance_id bigint, service_id bigint, musician_id bigint, status varchar, effective_from timestamp,
    recorded_at timestamp, updated_at timestamp, _airbyte_ab_id varchar, _airbyte_emitted_at timestamp
);
create table raw.supabase_payment (
    payment_id bigint, concert_id bigint, musician_id bigint, gross_amount numeric(18, 2), deductions numeric(18, 2),
    net_amount numeric(18, 2), paid boolean, payment_date date, updated_at timestamp,
    _airbyte_ab_id varchar, _airbyte_emitted_at timestamp
);
