// A converted model as `tandem compare` reads it: its report.json and its resolved spec, from a
// coordinator or from the files of a work folder. The figures come from report.json alone, so that
// table, JSON, CSV and page say the same.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/status.h"
#include "cli/client.h"

namespace tandem::cli {

struct ComparedJob {
  std::string name;  // short; made unique by Unique
  std::string uid;
  nlohmann::json report;  // report.json, an object
  nlohmann::json spec;    // the resolved spec, or null where it is not known
  std::string page;       // report.html's path, or ""
};

// path: a report.json, a job's folder (<work>/jobs/<uid>), or a work folder, which gives all its
// evaluated jobs, sorted by name. kNotFound where there is no report.
Result<std::vector<ComparedJob>> ReadJobs(const std::string& path);
Result<ComparedJob> FetchJob(Client& client, const std::string& name);

// Jobs of one name get the start of their uid behind it.
void MakeNamesUnique(std::vector<ComparedJob>& jobs);

}  // namespace tandem::cli
