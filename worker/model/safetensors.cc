#include "worker/model/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <set>

#include "base/files.h"

namespace tandem {
namespace {

using nlohmann::json;

constexpr const char* kIndexName = "model.safetensors.index.json";

Status RefuseDirectory(const std::string& directory) {
  TANDEM_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListFolder(directory));
  for (const std::string& name : names) {
    if (name.ends_with(".bin") || name.ends_with(".pt") || name.ends_with(".pth")) {
      return InvalidArgument(
          directory + " holds " + name +
          ", a pickle, which is never read; convert it: AutoModelForCausalLM.from_pretrained(DIR)"
          ".save_pretrained(DIR, safe_serialization=True)");
    }
  }
  return InvalidArgument(directory + " holds no weights; model.safetensors or " + kIndexName +
                         " is needed");
}

Status CheckShardName(const std::string& shard, const std::string& where) {
  if (shard.find('/') != std::string::npos || !shard.ends_with(".safetensors")) {
    return InvalidArgument(where + ": weight_map names the file '" + shard.substr(0, 120) +
                           "'; a plain name ending in .safetensors is needed");
  }
  return Status::Ok();
}

// tensor -> shard
Result<std::map<std::string, std::string>> ReadWeightMap(const std::string& path) {
  TANDEM_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxSafetensorsHeaderBytes));
  const json root = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!root.is_object() || !root.contains("weight_map") || !root["weight_map"].is_object() ||
      root["weight_map"].empty()) {
    return InvalidArgument(path + " must be a JSON object with a weight_map {tensor: file}");
  }
  std::map<std::string, std::string> map;
  for (const auto& item : root["weight_map"].items()) {
    if (!item.value().is_string()) {
      return InvalidArgument(path + ": weight_map of '" + item.key() + "' must be a file name");
    }
    const auto shard = item.value().get<std::string>();
    TANDEM_RETURN_IF_ERROR(CheckShardName(shard, path));
    map.emplace(item.key(), shard);
  }
  return map;
}

}  // namespace

Result<std::unique_ptr<SafetensorsFile>> SafetensorsFile::Open(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(path);
  struct stat info {};
  void* mapping = MAP_FAILED;
  Status failed;
  if (fstat(fd, &info) != 0) {
    failed = ErrnoStatus(path);
  } else if (!S_ISREG(info.st_mode) || info.st_size < 8) {
    failed = InvalidArgument(path + " is not a safetensors file: it has " +
                             std::to_string(info.st_size) + " bytes; at least 8 are needed");
  } else {
    mapping = mmap(nullptr, static_cast<size_t>(info.st_size), PROT_READ, MAP_PRIVATE, fd, 0);
    if (mapping == MAP_FAILED) failed = ErrnoStatus(path);
  }
  close(fd);
  if (!failed.ok()) return failed;
  std::unique_ptr<SafetensorsFile> file(new SafetensorsFile);
  file->path_ = path;
  file->mapping_ = mapping;
  file->mapping_bytes_ = static_cast<size_t>(info.st_size);
  const auto* bytes = static_cast<const std::byte*>(mapping);
  TANDEM_ASSIGN_OR_RETURN(file->header_,
                          ParseSafetensorsHeader(bytes, info.st_size, info.st_size, path));
  for (size_t i = 0; i < file->header_.tensors.size(); ++i) {
    TensorView& view = file->header_.tensors[i];
    view.data = bytes + file->header_.data_begin + file->header_.begins[i];
    file->index_.emplace(view.name, i);
  }
  return file;
}

SafetensorsFile::~SafetensorsFile() {
  if (mapping_ != nullptr) munmap(mapping_, mapping_bytes_);
}

const TensorView* SafetensorsFile::Find(const std::string& name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &header_.tensors[found->second];
}

Result<SafetensorsModel> SafetensorsModel::Open(const std::string& directory) {
  SafetensorsModel model;
  model.directory_ = directory;
  std::set<std::string> shards;
  std::map<std::string, std::string> weight_map;
  const std::string index = JoinPath(directory, kIndexName);
  if (PathExists(JoinPath(directory, "model.safetensors"))) {
    shards.insert("model.safetensors");
  } else if (PathExists(index)) {
    TANDEM_ASSIGN_OR_RETURN(weight_map, ReadWeightMap(index));
    for (const auto& [tensor, shard] : weight_map) shards.insert(shard);
  } else {
    return RefuseDirectory(directory);
  }
  for (const std::string& shard : shards) {
    TANDEM_ASSIGN_OR_RETURN(auto file, SafetensorsFile::Open(JoinPath(directory, shard)));
    for (const TensorView& view : file->tensors()) {
      const auto promised = weight_map.find(view.name);
      if (!weight_map.empty() && (promised == weight_map.end() || promised->second != shard)) {
        return InvalidArgument(
            file->path() + " holds '" + view.name + "', which " + index +
            (promised == weight_map.end() ? " does not name" : " places in " + promised->second));
      }
      model.tensors_.emplace(view.name, view);
    }
    model.files_.push_back(std::move(file));
  }
  for (const auto& [tensor, shard] : weight_map) {
    if (!model.tensors_.contains(tensor)) {
      return InvalidArgument(index + " places '" + tensor + "' in " + shard +
                             ", which does not hold it");
    }
  }
  return model;
}

const TensorView* SafetensorsModel::Find(const std::string& name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

std::vector<std::string> SafetensorsModel::FilePaths() const {
  std::vector<std::string> paths;
  for (const auto& file : files_) paths.push_back(file->path());
  return paths;
}

}  // namespace tandem
