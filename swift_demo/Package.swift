// swift-tools-version: 6.0

import PackageDescription

let package = Package(
  name: "MViT",
  platforms: [.iOS(.v17), .macOS(.v14)],
  products: [
    .library(name: "MViTKit", targets: ["MViTKit"]),
    .library(name: "MViTCoreML", targets: ["MViTCoreML"]),
    .executable(name: "mvit", targets: ["mvit"]),
  ],
  targets: [
    .target(name: "MViTKit"),
    .target(name: "MViTCoreML", dependencies: ["MViTKit"]),
    .executableTarget(name: "mvit", dependencies: ["MViTKit", "MViTCoreML"]),
    .testTarget(name: "MViTKitTests", dependencies: ["MViTKit"]),
  ],
  swiftLanguageModes: [.v6]
)
