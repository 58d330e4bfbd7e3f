#include "client/cli/settings.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <fstream>
#include <utility>
#include <vector>

namespace epo::cli {
namespace {

using Field = std::optional<std::string> PartialSettings::*;

constexpr std::pair<const char*, Field> kProfileKeys[] = {
    {"server", &PartialSettings::server},
    {"output", &PartialSettings::output},
    {"tls", &PartialSettings::tls},
    {"tls-ca", &PartialSettings::tls_ca},
    {"tls-cert", &PartialSettings::tls_cert},
    {"tls-key", &PartialSettings::tls_key},
    {"api-key-file", &PartialSettings::api_key_file},
};

constexpr std::pair<const char*, Field> kVariables[] = {
    {"EPO_SERVER", &PartialSettings::server},
    {"EPO_TLS", &PartialSettings::tls},
    {"EPO_TLS_CA", &PartialSettings::tls_ca},
    {"EPO_TLS_CERT", &PartialSettings::tls_cert},
    {"EPO_TLS_KEY", &PartialSettings::tls_key},
    {"EPO_API_KEY", &PartialSettings::api_key},
    {"EPO_API_KEY_FILE", &PartialSettings::api_key_file},
};

Field ProfileField(const std::string& key) {
  for (const auto& [name, field] : kProfileKeys) {
    if (key == name) return field;
  }
  return nullptr;
}

absl::StatusOr<bool> ParseBool(const std::string& text) {
  for (const char* yes : {"true", "1", "yes", "on"}) {
    if (text == yes) return true;
  }
  for (const char* no : {"false", "0", "no", "off"}) {
    if (text == no) return false;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("tls is '", text, "'; give true or false (--tls, EPO_TLS or the profile)"));
}

}  // namespace

std::string ProfilePath() {
  if (const char* config = std::getenv("XDG_CONFIG_HOME"); config != nullptr && *config != '\0') {
    return absl::StrCat(config, "/epo/config.toml");
  }
  const char* home = std::getenv("HOME");
  return home == nullptr ? "" : absl::StrCat(home, "/.config/epo/config.toml");
}

absl::StatusOr<PartialSettings> ReadProfile(const std::string& path) {
  PartialSettings profile;
  std::ifstream file(path);
  if (!file) return profile;
  for (const CLI::ConfigItem& item : CLI::ConfigTOML().from_config(file)) {
    const Field field = ProfileField(item.fullname());
    if (field == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": unknown key '", item.fullname(), "'; the keys are ",
                       absl::StrJoin(kProfileKeys, ", ", [](std::string* out, const auto& key) {
                         absl::StrAppend(out, key.first);
                       })));
    }
    if (item.inputs.size() != 1) {
      return absl::InvalidArgumentError(absl::StrCat(
          path, ": ", item.name, ": one string is wanted, as in ", item.name, " = \"...\""));
    }
    profile.*field = item.inputs.front();
  }
  return profile;
}

PartialSettings ReadEnvironment() {
  PartialSettings environment;
  for (const auto& [name, field] : kVariables) {
    if (const char* value = std::getenv(name); value != nullptr && *value != '\0') {
      environment.*field = value;
    }
  }
  return environment;
}

absl::StatusOr<Settings> ResolveSettings(const PartialSettings& flags,
                                         const PartialSettings& environment,
                                         const PartialSettings& profile) {
  const auto first = [&](auto field) {
    return flags.*field ? flags.*field : environment.*field ? environment.*field : profile.*field;
  };
  Settings settings;
  if (const auto server = first(&PartialSettings::server)) {
    if (server->empty()) {
      return absl::InvalidArgumentError(
          "the server's address is empty; give HOST:PORT to --server, EPO_SERVER or the profile");
    }
    settings.server = *server;
    if (server->find(':') == std::string::npos) settings.server += ":50051";
  }
  if (const auto output = first(&PartialSettings::output)) {
    if (*output == "table") {
      settings.format = Format::kTable;
    } else if (*output == "json") {
      settings.format = Format::kJson;
    } else if (*output == "jsonl") {
      settings.format = Format::kJsonl;
    } else if (*output == "csv") {
      settings.format = Format::kCsv;
    } else {
      return absl::InvalidArgumentError(
          absl::StrCat("output format '", *output, "' is none of table, json, jsonl and csv"));
    }
  }
  settings.tls_ca = first(&PartialSettings::tls_ca).value_or("");
  settings.tls_cert = first(&PartialSettings::tls_cert).value_or("");
  settings.tls_key = first(&PartialSettings::tls_key).value_or("");
  settings.tls = !settings.tls_ca.empty() || !settings.tls_cert.empty();
  if (const auto tls = first(&PartialSettings::tls)) {
    const absl::StatusOr<bool> on = ParseBool(*tls);
    if (!on.ok()) return on.status();
    settings.tls = *on;
  }
  if (settings.tls_cert.empty() != settings.tls_key.empty()) {
    return absl::InvalidArgumentError(
        settings.tls_key.empty()
            ? "there is a client certificate, but no key; give --tls-key (or EPO_TLS_KEY) too"
            : "there is a client's key, but no certificate; give --tls-cert (or EPO_TLS_CERT) too");
  }
  for (const PartialSettings* source : {&flags, &environment, &profile}) {
    if (!source->api_key && !source->api_key_file) continue;
    settings.api_key = source->api_key.value_or("");
    if (!source->api_key) settings.api_key_file = *source->api_key_file;
    break;
  }
  return settings;
}

}  // namespace epo::cli
