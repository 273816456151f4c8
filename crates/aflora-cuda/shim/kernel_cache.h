// Compiled kernels kept between processes: NVRTC takes up to five seconds for one of ours, and 15 to 80 ms for one that it has in a
// cache of its own; a kept file is read in one.
//
// A file holds what its kernel was made of, whole, and is compared with that: a file of another source, compiler or GPU is none.
// It is written beside its place and moved there, so that nobody reads half of one. Whatever fails here, the kernel is compiled. What
// nobody took for 60 days goes when another comes.
#pragma once

#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace aflora {

// What lies in a file: what the binary was made of, a mark, the binary, and a checksum of it.
class KernelCache {
public:
    // In this folder, which is made with the first kernel; an empty path keeps nothing.
    explicit KernelCache(std::filesystem::path folder) : folder_(std::move(folder)) {}

    // In the user's folder for what can be made again, if there is one.
    static const KernelCache& of_user() {
        static KernelCache cache(folder_of_user());
        return cache;
    }

    std::optional<std::string> find(const std::string& made_of) const {
        if (folder_.empty()) return std::nullopt;
        try {
            std::ifstream file(place(made_of), std::ios::binary);
            std::string whole((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
            std::string front = made_of + MARK;
            if (whole.size() <= front.size() + CHECKSUM || whole.compare(0, front.size(), front) != 0) return std::nullopt;
            std::string binary = whole.substr(front.size(), whole.size() - front.size() - CHECKSUM);
            if (whole.compare(whole.size() - CHECKSUM, CHECKSUM, hash(binary)) != 0) return std::nullopt;
            std::error_code failed;
            std::filesystem::last_write_time(place(made_of), Clock::now(), failed);
            return binary;
        } catch (const std::exception&) {
            // A file that cannot be read to its end, or is a folder.
            return std::nullopt;
        }
    }

    void keep(const std::string& made_of, const std::string& binary) const {
        if (folder_.empty()) return;
        try {
            std::filesystem::create_directories(folder_);
            forget_old();
            auto beside = place(made_of);
            beside += "." + std::to_string(getpid()) + "-" + std::to_string(std::random_device()());
            std::ofstream file(beside, std::ios::binary);
            file << made_of << MARK << binary << hash(binary);
            file.close();
            std::error_code failed;
            if (file) std::filesystem::rename(beside, place(made_of), failed);
            if (!file || failed) std::filesystem::remove(beside);
        } catch (const std::exception&) {
        }
    }

private:
    using Clock = std::filesystem::file_time_type::clock;
    static constexpr auto KEPT = std::chrono::hours(60 * 24);
    static constexpr char MARK = '\0';
    static constexpr size_t CHECKSUM = 16;

    std::filesystem::path folder_;

    // Halves of files among them, whose writers were ended.
    void forget_old() const {
        for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
            std::error_code failed;
            auto written = entry.last_write_time(failed);
            if (!failed && entry.is_regular_file(failed) && Clock::now() - written > KEPT) std::filesystem::remove(entry.path(), failed);
        }
    }

    static std::filesystem::path folder_of_user() {
        auto named = [](const char* variable) -> std::filesystem::path {
            const char* value = std::getenv(variable);
            return value ? value : "";
        };
        auto caches = named("XDG_CACHE_HOME");
        if (!caches.is_absolute() && named("HOME").is_absolute()) caches = named("HOME") / ".cache";
        return caches.is_absolute() ? caches / "aflora" / "kernels" : std::filesystem::path();
    }

    static std::string hash(std::string_view bytes) {
        char digits[CHECKSUM + 1];
        std::snprintf(digits, sizeof digits, "%016zx", std::hash<std::string_view>()(bytes));
        return digits;
    }

    std::filesystem::path place(const std::string& made_of) const { return folder_ / (hash(made_of) + ".cubin"); }
};

}  // namespace aflora
